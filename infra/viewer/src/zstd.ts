/** The codec `zstd` of Zarr, decoding only; it takes the place of that of numcodecs. */
import {decompress} from 'fzstd';

export default class Zstd {
  readonly kind = 'bytes_to_bytes';

  static fromConfig(): Zstd {
    return new Zstd();
  }

  encode(): never {
    throw new Error('the viewer writes nothing');
  }

  decode(data: Uint8Array): Uint8Array {
    return decompress(data);
  }
}
