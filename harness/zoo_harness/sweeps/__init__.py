"""Execute many runs from one plan: in this process, in local worker processes, or on a Ray cluster."""
