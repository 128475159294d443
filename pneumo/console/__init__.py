"""What every verb shares.

command   runs a command line; exit statuses; the command that was typed, to be shown again; help its help texts
signals   Ctrl-C, SIGTERM and SIGHUP
display   consoles, lines and progress bars; trainings the live lines of trainings
"""
