// Unpacks a gzip file, or fetches an URL as it comes, and prints how many bytes that are and their SHA-256.
package main

import (
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"os"
)

func main() {
	bytes, err := read(os.Args[1], os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("%d %x", len(bytes), sha256.Sum256(bytes))
}

func read(what, where string) ([]byte, error) {
	if what == "url" {
		response, err := http.Get(where)
		if err != nil {
			return nil, err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("%s: %s", where, response.Status)
		}
		return io.ReadAll(response.Body)
	}
	file, err := os.Open(where)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	unpacked, err := gzip.NewReader(file)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(unpacked)
}
