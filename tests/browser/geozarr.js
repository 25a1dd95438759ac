// Read one map with the stock GeoZarr source of OpenLayers, and send its values to the server.
import GeoZarr from 'ol/source/GeoZarr.js';
import {register} from 'ol/proj/proj4.js';
import proj4 from 'proj4';

async function readTile(source, zoom) {
  const tile = source.getTile(zoom, 0, 0, 1, source.getProjection());
  await new Promise((resolve, reject) => {
    tile.addEventListener('change', () => {
      if (tile.getState() === 2) resolve();
      if (tile.getState() === 3) reject(tile.getError?.() ?? new Error('the tile has an error'));
    });
    tile.load();
  });
  return tile;
}

async function main() {
  proj4.defs('EPSG:6933', '+proj=cea +lat_ts=30 +lon_0=0 +datum=WGS84 +units=m +no_defs');
  register(proj4);
  const settings = JSON.parse(decodeURIComponent(location.search.slice(1)));
  const source = new GeoZarr({
    url: new URL(settings.path, location.href).href,
    bands: ['soil_moisture'],
    dimensions: {time: settings.time},
    resample: 'nearest',
  });
  await source.getView();
  const grid = source.getTileGrid();
  const zoom = grid.getMaxZoom();
  const tile = await readTile(source, zoom);
  const [width] = [source.getTileSize(zoom)].flat();
  const data = tile.getData();
  const [rows, columns] = settings.shape;
  const values = [];
  for (let row = 0; row < rows; row++) {
    values.push([]);
    for (let column = 0; column < columns; column++) {
      values[row].push(data[(row * width + column) * source.bandCount]);
    }
  }
  return {
    projection: source.getProjection().getCode(),
    extent: grid.getExtent(),
    resolution: grid.getResolution(zoom),
    origin: grid.getOrigin(zoom),
    values,
  };
}

main()
  .catch((error) => ({error: `${error.stack ?? error}`}))
  .then((result) => fetch('/result', {method: 'POST', body: JSON.stringify(result)}));
