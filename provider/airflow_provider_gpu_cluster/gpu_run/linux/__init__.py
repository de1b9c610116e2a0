"""What Linux offers: processes, locks, inotify, copies of files, room on a disk."""
