"""The one SSH connection to a cluster: channels, SFTP, and the program that is brought there."""
