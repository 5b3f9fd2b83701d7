"""The canary controller: from versions, nodes and outcomes to one record per line, generation by generation."""
