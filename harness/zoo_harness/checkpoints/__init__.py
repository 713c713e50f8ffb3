"""Write checkpoints that timm and transformers can load, and read checkpoints from untrusted sources."""
