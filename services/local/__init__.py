"""One machine's stand-ins for a cluster: an embedded broker, a redis-server, and a supervisor of processes."""
