"""llama.cpp: GGUF files through its C interface."""
