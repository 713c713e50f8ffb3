"""Download, verify and publish checkpoints on the Hugging Face Hub."""
