"""Build-time tools: fetch, check, patch and stage the llama.cpp source. Standard library only."""
