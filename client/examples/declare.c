/* Sends one datagram under a declared operation: declare ADDRESS PORT OPERATION TEXT */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "../include/govc.h"

int main(int argc, char **argv)
{
	struct sockaddr_in to = { .sin_family = AF_INET };
	int fd;

	if (argc != 5 || inet_pton(AF_INET, argv[1], &to.sin_addr) != 1) {
		fprintf(stderr, "usage: declare ADDRESS PORT OPERATION TEXT\n");
		return 2;
	}
	to.sin_port = htons((unsigned short)atoi(argv[2]));
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	if (fd < 0 || govc_declare(fd, argv[3]) != 0) {
		perror("declare");
		return 1;
	}
	if (sendto(fd, argv[4], strlen(argv[4]), 0, (struct sockaddr *)&to, sizeof to) < 0) {
		perror("send");
		return 1;
	}
	return close(fd);
}
