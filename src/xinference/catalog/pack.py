"""Writes a registry as one catalog: ``python -m xinference.catalog.pack VERSION OUT [FOLDER]``; prints its sha256.

A tool for publishers of catalogs; `docs/catalog.md` describes it. FOLDER has files as `xinference.catalog.facts` writes
them; without it, the families of this release are written.
"""

from __future__ import annotations

import sys
from pathlib import Path

from xinference.catalog.catalog_document import read_catalog, sha256_of, write_catalog
from xinference.catalog.registry import FamilyFolder, builtin_families


def main(version: str, out: Path, folder: Path | None = None) -> str:
    """Write the catalog and return its sha256.

    Raises:
        Problem: 400 ``bad_catalog`` or ``bad_registry_entry``.
    """
    families = builtin_families() if folder is None else FamilyFolder(folder)
    text = write_catalog(version, families.values())
    read_catalog(text, str(out), {})
    out.write_bytes(text)
    return sha256_of(text)


if __name__ == "__main__":
    arguments = sys.argv[3:]
    digest = main(sys.argv[1], Path(sys.argv[2]), Path(arguments[0]) if arguments else None)
    sys.stdout.write(f"{digest}\n")
