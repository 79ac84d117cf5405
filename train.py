"""LFM4Ads-TF's command line in a checkout; where the package is installed: `lfm4ads-train`."""

from __future__ import annotations

import sys

try:
    from lfm4ads_tf.command_line import main
except Exception as error:
    # The package itself refuses a process that is bound to Keras 3; its errors cannot be imported.
    if type(error).__name__ != "UserError":
        raise
    print(f"Error: {error}", file=sys.stderr)
    sys.exit(2)

if __name__ == "__main__":
    main()
