"""What servers answered, kept small and without secrets, so that it can be replayed offline.

A gateway on loopback stands between the libraries that read sources and the servers. They are
routed there whatever they speak with: aiohttp (fsspec over HTTP, S3, GCS and Azure), requests
(searches and services), GDAL, and Icechunk where it reads without keys.
"""
