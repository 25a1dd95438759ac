/** The codec `crc32c` of Zarr; unlike that of zarrita it checks the sum, so damage is noticed. */

const TABLE = Uint32Array.from({length: 256}, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0x82f63b78 : value >>> 1;
  return value >>> 0;
});

/** CRC-32C (Castagnoli) of bytes. */
export function crc32c(bytes: Uint8Array): number {
  let sum = 0xffffffff;
  for (let i = 0; i < bytes.length; i++) {
    sum = (TABLE[(sum ^ bytes[i]!) & 0xff]! ^ (sum >>> 8)) >>> 0;
  }
  return (sum ^ 0xffffffff) >>> 0;
}

export class CheckedCrc32c {
  readonly kind = 'bytes_to_bytes';

  static fromConfig(): CheckedCrc32c {
    return new CheckedCrc32c();
  }

  computeEncodedSize(size: number): number {
    return size + 4;
  }

  encode(): never {
    throw new Error('the viewer writes nothing');
  }

  decode(data: Uint8Array): Uint8Array {
    const content = data.subarray(0, data.length - 4);
    const stored = new DataView(data.buffer, data.byteOffset + content.length, 4).getUint32(0, true);
    if (stored !== crc32c(content)) throw new Error('a chunk is damaged: its checksum differs');
    return content;
  }
}
