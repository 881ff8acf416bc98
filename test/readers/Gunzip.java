import java.io.FileInputStream;
import java.io.InputStream;
import java.net.Socket;
import java.security.MessageDigest;
import java.util.HexFormat;
import java.util.zip.GZIPInputStream;

/** Unpacks a gzip file, or what a TCP server sends, and prints how many bytes came out and their SHA-256. */
public class Gunzip {
  public static void main(String[] words) throws Exception {
    try (InputStream packed = words[0].equals("file")
        ? new FileInputStream(words[1])
        : new Socket("127.0.0.1", Integer.parseInt(words[1])).getInputStream()) {
      byte[] bytes = new GZIPInputStream(packed).readAllBytes();
      byte[] digest = MessageDigest.getInstance("SHA-256").digest(bytes);
      System.out.print(bytes.length + " " + HexFormat.of().formatHex(digest));
    }
  }
}
