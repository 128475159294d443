"""What every verb shares.

command   runs a command line; exit statuses; the command that was typed, to be shown again
signals   Ctrl-C and SIGTERM
display   consoles, progress bars, and what a search shows of its trials
"""
