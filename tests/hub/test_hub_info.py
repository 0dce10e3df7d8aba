"""`latentdiff info` of a model on the hub: the same download, and no torch for it."""

import subprocess
import sys

from loopback_hub import OWNER

from latentdiff.inspection.model import describe_pipeline


def test_info(hub, folder):
    hub.add(f"{OWNER}/tiny", folder)
    assert describe_pipeline(f"{OWNER}/tiny")["task"] == "text-to-image"


def test_finding_a_folder_needs_no_torch():
    code = "import sys, latentdiff.hub.folder, latentdiff.hub.download; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_info_needs_no_torch(folder):
    code = (
        "import sys; from latentdiff.inspection.model import describe_component, describe_pipeline\n"
        f"describe_pipeline({str(folder)!r})\n"
        f"describe_component({str(folder / 'vae')!r})\n"
        "print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
