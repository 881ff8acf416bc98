/** What each byte is worth as a digit of hex, of either case; -1 for those that are none. */
export const hexDigits = digitTable('0123456789abcdef', (index) => index)
for (let digit = 10; digit < 16; digit++) hexDigits[0x41 + digit - 10] = digit

/** As `hexDigits` for base64, standard and URL-safe (RFC 4648, 4 and 5). */
export const base64Digits = digitTable(
  'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/',
  (index) => index,
)
base64Digits[0x2d] = 62
base64Digits[0x5f] = 63

/** 1 for the bytes that may stand in a number of JSON. */
export const numberCharacters = digitTable('+-.0123456789Ee', () => 1)

/** The worth of each of `characters`, by its byte. */
function digitTable(characters: string, worth: (index: number) => number): Int8Array {
  const table = new Int8Array(256).fill(-1)
  for (let i = 0; i < characters.length; i++) table[characters.charCodeAt(i)] = worth(i)
  return table
}
