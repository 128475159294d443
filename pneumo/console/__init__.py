"""What every verb shares.

command   runs a command line; exit statuses; the command that was typed, to be shown again
signals   Ctrl-C, SIGTERM and SIGHUP
display   consoles, progress bars, and what a search shows of its trials
"""
