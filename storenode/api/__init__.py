"""The local HTTP API: the replica for programs that do not speak SQL. The one home of Starlette and uvicorn.

May import every room of storenode but commands, and storelink.
"""
