"""The OSSE: a planet whose truth is known, written as files like a provider's (`write.generate`).

`planet` holds every magnitude; `land`, `weather`, `bucket` make the truth; `forcing`, `attributes`,
`satellite`, `sites` observe it, each with its own errors and random streams; `netcdf` and `spl3smp`
give the files their form.
"""
