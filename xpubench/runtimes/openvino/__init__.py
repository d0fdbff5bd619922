"""OpenVINO's runtimes, and the exports that they run."""
