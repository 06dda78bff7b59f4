"""The deb in roots that debootstrap has made, each for one test and without a network: none of them is changed.

LINSTOR_UN_ROOTS names them, separated by colons, for instance of
`debootstrap --variant=minbase --include=python3-lxml,python3-click,openssh-client trixie DIR`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.development.packaging.conftest import Built
from tests.linstor_un.cli.trees import Tree

ROOTS = [Path(root) for root in os.environ.get("LINSTOR_UN_ROOTS", "").split(":") if root]
# What is written is in memory, and gone with the namespace.
_IN_A_COPY = """
set -e
mount -t tmpfs none "$2" && mkdir "$2/upper" "$2/work" "$2/root"
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
cp -a "$3" "$2/root/tmp/given"
mount -t proc none "$2/root/proc"
exec chroot "$2/root" sh -ec "$4" sh "$5"
"""
_LIFE = """
exec 2>&1
apt-get install -y --no-install-recommends /tmp/given/linstor-un.deb
! linstor-un check
cp -a /tmp/given/tree/etc /tmp/given/tree/var /
echo === configured
/usr/share/linstor_un/maintain configure
linstor-un check --json || test $? = 3
echo === called
printf %s "$1" | base64 -w0 | /var/lib/one/remotes/datastore/linstor_un/monitor 100 || :
echo === removed
apt-get purge -y linstor-un
cmp /etc/one/oned.conf /tmp/given/tree/etc/one/oned.conf
find / -xdev -name '*linstor[-_]un*' -not -path '/tmp/*'
"""
_DATASTORE = """
<DS_DRIVER_ACTION_DATA><DATASTORE><ID>100</ID><NAME>linstor-images</NAME><TYPE>0</TYPE><DS_MAD>linstor_un</DS_MAD>
<TM_MAD>linstor_un</TM_MAD><BASE_PATH>/var/lib/one/datastores/100</BASE_PATH><TEMPLATE><STORAGE_POOL>data</STORAGE_POOL>
<REPLICA_COUNT>2</REPLICA_COUNT><LS_CONTROLLERS>127.0.0.1</LS_CONTROLLERS></TEMPLATE></DATASTORE></DS_DRIVER_ACTION_DATA>
"""


@pytest.mark.skipif(not ROOTS, reason="LINSTOR_UN_ROOTS names no root that debootstrap has made")
@pytest.mark.parametrize("root", ROOTS, ids=lambda root: root.name)
def test_a_distribution_takes_and_loses_the_package(root: Path, built: Built, tmp_path: Path) -> None:
    given = tmp_path / "given"
    Tree(given / "tree", packages=True)
    shutil.copy(built("deb")[0], given / "linstor-un.deb")
    (tmp_path / "copy").mkdir()
    words = ["unshare", "-mn", "sh", "-c", _IN_A_COPY, "sh", root, tmp_path / "copy", given, _LIFE, _DATASTORE]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    installed, configured, called, removed = (part.strip() for part in done.stdout.split("==="))
    assert "once OpenNebula is installed, `linstor-un install` edits it" in installed
    assert "There is no OpenNebula front-end here" in installed
    assert "linstor-un: oned.conf has its lines" in configured
    # Of what check says is missing nothing is what the package has brought.
    assert '"code": "oned-unreachable"' in configured
    assert [code for code in ("package-", "bytecode-", "scripts-", "interpreter-") if f'"{code}' in configured] == []
    # With a python-linstor that the distribution does not have.
    assert "No LINSTOR controller answers (127.0.0.1" in called, called
    assert [line for line in removed.splitlines() if line.startswith("/")] == []
