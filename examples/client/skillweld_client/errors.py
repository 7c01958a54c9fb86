"""What can go wrong between a robot and its policy server."""


class ClientError(Exception):
    """Any error of this package."""


class ConnectError(ClientError):
    """No connection: nothing listens there, the API key is not accepted, too many clients."""


class RequestError(ClientError):
    """The server refused a request. The text is the server's; the connection has ended."""


class ConnectionLost(ClientError):
    """The connection broke, or no reply came in time."""
