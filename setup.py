"""Packaging: only linstor_un is installed; the sandbox and the tools of a checkout stay in the checkout."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent
REQUIREMENTS = HERE / "lib" / "development" / "requirements.txt"


def development_requirements() -> list[str]:
    """What ./dev installs, without comments."""
    lines = (line.partition("#")[0].strip() for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


setup(
    name="linstor_un",
    version="3.0.0.dev0",
    description="OpenNebula's storage driver on LINSTOR: images and VM disks as DRBD volumes",
    license="Apache-2.0",
    package_dir={"": "lib"},
    packages=find_packages("lib", include=["linstor_un", "linstor_un.*"]),
    python_requires=">=3.9",
    install_requires=["click>=7.1", "lxml>=4.5", "python-linstor>=1.23"],
    # What `linstor-un install` needs beside the library.
    data_files=[("share/linstor_un", ["etc/linstor_un.conf"])],
    entry_points={"console_scripts": ["linstor-un = linstor_un.cli.__main__:main"]},
    extras_require={"dev": development_requirements()},
)
