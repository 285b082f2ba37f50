"""Ready-made plugins: `--atlas-plugin NAME` loads the class `Plugin` of the module NAME of this package."""
