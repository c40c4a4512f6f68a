"""Names of what lies beside pictures and is none of them: thumbnails, databases and previews, or our own output."""

import os

from toolkit.machine import cache_dir

#: Folders, in lower case, that systems, viewers, network drives and tools make among anybody's files.
JUNK_FOLDERS = frozenset(
    (
        *("__macosx", ".appledouble", ".spotlight-v100", ".fseventsd", ".trashes", ".temporaryitems"),  # macOS
        *(".documentrevisions-v100", ".apdisk", "network trash folder", "temporary items"),
        *("$recycle.bin", "system volume information", "found.000", "msocache"),  # Windows
        *("lost+found", ".trash", ".thumbnails", ".thumbs", ".cache", ".xvpics", ".directory"),  # Linux
        *("@eadir", "#recycle", "#snapshot", "@tmp", "@sharebin"),  # Synology
        *("@recycle", "@recently-snapshot", ".@__thumb", ".@upload_cache", ".streams"),  # QNAP
        *(".snapshot", ".snapshots", ".zfs", "~snapshot"),  # other network drives
        *(".picasaoriginals", ".comments", "ipod photo cache", "zb_thumbnails", ".photoprism", ".pics"),  # viewers
        *(".dropbox.cache", ".stfolder", ".stversions", ".sync", ".tmp.drivedownload", ".tmp.driveupload"),  # clouds
        *(".git", ".svn", ".hg", ".dvc", ".ipynb_checkpoints", "__pycache__", ".pytest_cache", ".mypy_cache"),
        *(".ruff_cache", ".idea", ".vscode", ".venv", ".github", ".huggingface", ".config", ".local"),
    )
)
#: Files, in lower case.
JUNK_FILES = frozenset(
    (
        *(".ds_store", ".localized", ".volumeicon.icns", "icon\r", ".com.apple.timemachine.donotpresent"),
        *("thumbs.db", "thumbs.db:encryptable", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "autorun.inf"),
        *(".directory", "synofile_thumb.db", "synoindex_media_info", ".picasa.ini", "picasa.ini", "zbthumbnail.info"),
        *("pspbrwse.jbf", ".bridgecache", ".bridgecachet", ".gitkeep", ".gitignore", ".gitattributes", ".keep"),
        *(".nomedia", ".hidden", ".dropbox", ".dropbox.attr"),
    )
)
# AppleDouble twins of any file, NFS's and FUSE's deleted ones, Office's locks; our own unfinished output.
_PREFIXES = ("._", ".nfs", ".fuse_hidden", "~$", ".trash-", "synophoto_", "synothumb_", ".partial-", ".staging-")

# A bundle's version, a run, a search for settings.
_MARKS = (
    ("assets.extra/manifest.json",),
    ("config.json", "environment.json", "splits.json"),
    ("search.json", "search.db"),
)


def is_junk(name: str) -> bool:
    """Tell if a file or folder of this name is a system's or another program's own, whatever is in it.

    >>> is_junk("@eaDir"), is_junk("Thumbs.db"), is_junk("._1.jpg"), is_junk("cats"), is_junk(".NET")
    (True, True, True, False, False)
    """
    lower = name.lower()
    return lower in JUNK_FOLDERS or lower in JUNK_FILES or lower.startswith(_PREFIXES)


def is_junk_path(path: str) -> bool:
    """Tell if any part of a relative path is such a name.

    >>> is_junk_path("cats/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg"), is_junk_path("cats/1.jpg")
    (True, False)
    """
    return any(map(is_junk, os.path.normpath(path).split("/")))


def is_output(folder: str) -> bool:
    """Tell if a folder is a run, a search, a bundle or the cache of this package, by the files it began with."""
    if any(all(os.path.isfile(os.path.join(folder, name)) for name in marks) for marks in _MARKS):
        return True
    try:
        versions = [name for name in os.listdir(folder) if name.isdecimal()]
        if any(os.path.isfile(os.path.join(folder, name, *_MARKS[0])) for name in versions):
            return True
        return os.path.samefile(folder, cache_dir())
    except OSError:
        return False
