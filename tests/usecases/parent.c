/* SPDX-License-Identifier: Apache-2.0
 *
 * A parent in C: starts the proxy with one half of a socket pair, fetches the manifest and prints it.
 * usage: parent PROGRAM [OPTIONS] IMAGE
 *
 * What matters: the child inherits its end and nothing else; an answer is used only when its status is 200 and all of
 * its length arrived; the exit status of the child is looked at. An error's body is a problem document (RFC 9457).
 */
#define _GNU_SOURCE /* strcasestr */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LARGEST = 8 * 1024 * 1024 }; /* bytes of an answer; a manifest has at most 4 MiB */

static void fail(const char *what) { perror(what); exit(1); }

/* Ask, and read to the end of the connection; the number of bytes in `answer`, which is ended by a NUL. */
static size_t ask(int line, const char *request, char *answer)
{
    size_t size = 0;
    ssize_t count;
    if (send(line, request, strlen(request), MSG_NOSIGNAL) != (ssize_t)strlen(request)) fail("the proxy is gone");
    while (size < LARGEST && (count = read(line, answer + size, LARGEST - size)) != 0) {
        if (count < 0) fail("read");
        size += (size_t)count;
    }
    answer[size] = '\0';
    return size;
}

int main(int argc, char **argv)
{
    int ends[2], state;
    char number[16], *answer = malloc(LARGEST + 1), **words = calloc((size_t)argc + 3, sizeof *words);
    if (argc < 3 || !answer || !words) return 2;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) fail("socketpair");
    snprintf(number, sizeof number, "%d", ends[1]);
    words[0] = argv[1], words[1] = "--sockfd", words[2] = number;
    memcpy(words + 3, argv + 2, (size_t)(argc - 2) * sizeof *words);
    pid_t child = fork();
    if (child < 0) fail("fork");
    if (child == 0) {
        fcntl(ends[1], F_SETFD, 0); /* this end alone survives the exec */
        execvp(words[0], words);
        perror(words[0]);
        _exit(127);
    }
    close(ends[1]); /* or the end of the conversation is never seen */

    size_t size = ask(ends[0], "GET /manifest HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", answer);
    close(ends[0]);
    char *body = strstr(answer, "\r\n\r\n"), *length = body ? strcasestr(answer, "\r\nContent-Length:") : NULL;
    if (!body || !length || length > body) { fputs("the proxy gave no answer\n", stderr); return 1; }
    body += 4;
    size_t arrived = size - (size_t)(body - answer), announced = strtoul(length + 17, NULL, 10);
    int complete = arrived == announced, good = strncmp(answer, "HTTP/1.1 200 ", 13) == 0;
    fwrite(body, 1, arrived, good && complete ? stdout : stderr);
    if (!complete) fprintf(stderr, "expected %zu bytes, found %zu\n", announced, arrived);
    if (waitpid(child, &state, 0) != child) fail("waitpid");
    return good && complete && WIFEXITED(state) && WEXITSTATUS(state) == 0 ? 0 : 1;
}
