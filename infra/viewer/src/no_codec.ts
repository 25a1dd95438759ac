/** Takes the place of codecs that no maps of soilweave have. */
export default class NoCodec {
  static fromConfig(): never {
    throw new Error('the maps have a codec that the viewer does not read');
  }
}
