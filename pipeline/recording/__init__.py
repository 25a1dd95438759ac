"""Record what servers answer, in small and without secrets, and replay it offline.

A gateway on loopback stands between the libraries that read sources and the servers. Requests are
routed to it from aiohttp (fsspec over HTTP, S3, GCS and Azure), requests (searches and services),
GDAL, and Icechunk where it reads without keys.
"""
