"""From specs to records: sessions, latency, accuracy, quantization, suites and their workers."""
