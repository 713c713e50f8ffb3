"""Write a checkpoint that other libraries load; read one that may come from a stranger."""
