"""The guide's command lines on an emulated xpu, under the Python layer of IPEX's xpu build."""
