"""Plan a run, execute it, resume it, score it again."""
