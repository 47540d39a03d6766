"""The package of models: lazy names."""

import subprocess
import sys

import pytest

from zsad_lib import models


def test_import_is_light():
    """Naming the package loads no library; a name loads its own module only."""
    code = (
        "import sys, zsad_lib.models as m; assert 'torch' not in sys.modules; m.ContextGate; "
        "assert 'torch' in sys.modules and 'open_clip' not in sys.modules and 'timm' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_names():
    assert models.build_clip.__module__ == "zsad_lib.models.text"
    assert {"TimeSformer", "DPC", "ContextGate", "Detector", "build_clip"} <= set(dir(models))
    with pytest.raises(AttributeError, match="TimeSfomer"):
        _ = models.TimeSfomer
