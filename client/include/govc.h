/* Declares what a socket does, for programs whose packets govc labels. See govc-client. */
#ifndef GOVC_H
#define GOVC_H

#include <string.h>
#include <sys/socket.h>

/* Level of the socket option, the option, and the longest name in bytes. */
#define SOL_GOVC 0x676f76
#define GOVC_OPERATION 1
#define GOVC_NAME_MAX 64

/*
 * Declares that `socket` is for `operation`, such as "ledger.read"; "" withdraws what was declared.
 * Returns 0, or -1 with errno: ENOPROTOOPT or EOPNOTSUPP where no enforcement point listens, EPERM
 * for a name that is too long.
 */
static inline int govc_declare(int socket, const char *operation)
{
	return setsockopt(socket, SOL_GOVC, GOVC_OPERATION, operation, (socklen_t)strlen(operation));
}

#endif
