"""Sends one datagram under a declared operation: declare.py ADDRESS PORT OPERATION TEXT"""

import socket
import sys

SOL_GOVC = 0x676F76
GOVC_OPERATION = 1

address, port, operation, text = sys.argv[1:]
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    sender.setsockopt(SOL_GOVC, GOVC_OPERATION, operation.encode())
    sender.sendto(text.encode(), (address, int(port)))
