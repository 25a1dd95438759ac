"""Ray: the connection to a cluster, its tasks, and verbs submitted as jobs."""
