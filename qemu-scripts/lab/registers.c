/*
 * Reads and writes registers of a PCI device from user space, as programs do that map the device's
 * BAR0 through sysfs.
 *
 *   registers RESOURCE OFFSET WIDTH [VALUE]           one read, or one write; prints the value
 *   registers RESOURCE hammer COUNT OFFSET OFFSET     one thread a processor and an offset: writes
 *                                                     1, 2, ... COUNT there, reads after each
 * RESOURCE is /sys/bus/pci/devices/ADDRESS/resource0; numbers are as in C; WIDTH is in bytes.
 * Prints where its own code is, too: that is where the accesses come from.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

extern char __executable_start, etext;

static volatile char *bar;
static uint32_t count;
static pthread_barrier_t both;

static uint64_t number(const char *word)
{
	char *end;
	uint64_t value = strtoull(word, &end, 0);

	if (*word == '\0' || *end != '\0')
		errx(2, "not a number: %s", word);
	return value;
}

struct hammer {
	int cpu;
	uint64_t offset;
};

static void *hammer(void *argument)
{
	const struct hammer *self = argument;
	volatile uint32_t *reg = (volatile uint32_t *)(bar + self->offset);
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(self->cpu, &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus) != 0)
		err(1, "no processor %d", self->cpu);
	pthread_barrier_wait(&both);
	for (uint32_t value = 1; value <= count; value++) {
		*reg = value;
		if (*reg != value)
			errx(1, "0x%" PRIx64 " does not keep what is written", self->offset);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	struct stat status;
	int file;

	if (argc < 4)
		errx(2, "see the head of registers.c");
	file = open(argv[1], O_RDWR);
	if (file < 0 || fstat(file, &status) != 0)
		err(1, "%s", argv[1]);
	bar = mmap(NULL, status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (bar == MAP_FAILED)
		err(1, "%s", argv[1]);
	printf("text %p %p\n", (void *)&__executable_start, (void *)&etext);

	if (strcmp(argv[2], "hammer") == 0 && argc == 6) {
		pthread_t threads[2];
		struct hammer hammers[2];

		count = number(argv[3]);
		pthread_barrier_init(&both, NULL, 2);
		for (int i = 0; i < 2; i++) {
			hammers[i] = (struct hammer){ i, number(argv[4 + i]) };
			if (pthread_create(&threads[i], NULL, hammer, &hammers[i]) != 0)
				errx(1, "no thread");
		}
		for (int i = 0; i < 2; i++)
			pthread_join(threads[i], NULL);
		printf("hammered %" PRIu32 "\n", count);
		return 0;
	}

	volatile void *reg = bar + number(argv[2]);
	uint64_t value = argc > 4 ? number(argv[4]) : 0;

#define ACCESS(type)                                   \
	do {                                           \
		if (argc > 4)                          \
			*(volatile type *)reg = value; \
		else                                   \
			value = *(volatile type *)reg; \
	} while (0)
	switch (number(argv[3])) {
	case 1:
		ACCESS(uint8_t);
		break;
	case 2:
		ACCESS(uint16_t);
		break;
	case 4:
		ACCESS(uint32_t);
		break;
	case 8:
		ACCESS(uint64_t);
		break;
	default:
		errx(2, "no such width: %s", argv[3]);
	}
	printf("%s %s 0x%s 0x%" PRIx64 "\n", argc > 4 ? "W" : "R", argv[3], argv[2] + 2, value);
	return 0;
}
