"""A soak: many clients of many kinds on one server for a while, and what is left of them afterwards.

`./dev soak --minutes N`. Like `./dev bench` it runs in a closed world; what it needs of guests and of the far
end is bench's. docs/operations.md says how to read its table.

    __main__   the command line          run        the world, the clients, before and after
    clients    well-behaved guests       abuse      the others, and what each of them does
    held       what a server holds       verdict    the table, and what is wrong (pure)
"""
