"""Functions of Linux: processes, locks, inotify, copies of files, disk space."""
