"""Ray: the connection to a cluster, tasks with receipts, and verbs submitted as jobs."""
