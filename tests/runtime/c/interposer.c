/* Counts what a real-time thread must not do, inside le_tick alone: memory, locks, system calls.
 *
 *     interposer RELEASE TICKS PACED_TICKS
 *
 * The program's own malloc and pthread functions stand in for the C library's everywhere; system
 * calls are caught by the kernel's user dispatch. Both engines are busy in their threads. Exit
 * status: 0 nothing was counted, 1 something was, 2 it could not run, 77 the kernel cannot watch.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <libra_edge.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#define SET_SYSCALL_USER_DISPATCH 59
enum { ALLOW = 0, BLOCK = 1 };

static _Thread_local volatile int watched;
static volatile unsigned long allocations, locks, calls;
static volatile char selector = ALLOW;

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *memory);

static void count(volatile unsigned long *number) {
  if (watched) ++*number;
}

void *malloc(size_t size) {
  count(&allocations);
  return __libc_malloc(size);
}
void *calloc(size_t number, size_t size) {
  count(&allocations);
  return __libc_calloc(number, size);
}
void *realloc(void *old, size_t size) {
  count(&allocations);
  return __libc_realloc(old, size);
}
void *aligned_alloc(size_t alignment, size_t size) {
  count(&allocations);
  return __libc_memalign(alignment, size);
}
int posix_memalign(void **to, size_t alignment, size_t size) {
  count(&allocations);
  *to = __libc_memalign(alignment, size);
  return *to == NULL;
}
void free(void *memory) {
  count(&allocations);
  __libc_free(memory);
}

#define FORWARD(name, parameters, arguments)       \
  int name parameters {                            \
    static int(*volatile real) parameters;         \
    count(&locks);                                 \
    if (real == NULL) {                            \
      void *found = dlsym(RTLD_NEXT, #name);       \
      memcpy((void *)&real, &found, sizeof found); \
    }                                              \
    return real arguments;                         \
  }

FORWARD(pthread_mutex_lock, (pthread_mutex_t * m), (m))
FORWARD(pthread_mutex_trylock, (pthread_mutex_t * m), (m))
FORWARD(pthread_mutex_unlock, (pthread_mutex_t * m), (m))
FORWARD(pthread_cond_signal, (pthread_cond_t * c), (c))
FORWARD(pthread_cond_broadcast, (pthread_cond_t * c), (c))
FORWARD(pthread_rwlock_rdlock, (pthread_rwlock_t * l), (l))
FORWARD(pthread_rwlock_wrlock, (pthread_rwlock_t * l), (l))

static void on_system_call(int number) {
  (void)number;
  selector = ALLOW;
  ++calls;
}

static void begin_watch(void) {
  watched = 1;
  selector = BLOCK;
}

static void end_watch(void) {
  selector = ALLOW;
  watched = 0;
}

/* Every instrument has to be able to count, or zero would mean nothing. */
static int instruments_work(void) {
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  struct timespec now;
  begin_watch();
  void *volatile memory = malloc(64);
  free(memory);
  pthread_mutex_lock(&mutex);
  pthread_mutex_unlock(&mutex);
  clock_getres(CLOCK_BOOTTIME, &now);
  selector = BLOCK;
  clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){0, 1}, NULL);
  end_watch();
  const int work = allocations == 2 && locks == 2 && calls >= 1;
  allocations = locks = calls = 0;
  return work;
}

static unsigned long long now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (unsigned long long)now.tv_sec * 1000000000u + (unsigned long long)now.tv_nsec;
}

static void die(const char *what, const char *detail) {
  fprintf(stderr, "interposer: %s: %s\n", what, detail);
  exit(2);
}

int main(int argc, char **argv) {
  if (argc != 4) die("usage", "interposer RELEASE TICKS PACED_TICKS");
  const unsigned long ticks = strtoul(argv[2], NULL, 10), paced = strtoul(argv[3], NULL, 10);
  struct sigaction action = {0};
  action.sa_handler = on_system_call;
  sigaction(SIGSYS, &action, NULL);
  if (prctl(SET_SYSCALL_USER_DISPATCH, 1, 0, 0, &selector) != 0) return 77;
  if (!instruments_work()) die("self-test", "an instrument does not count");

  char error[LE_ERROR_SIZE];
  le_open_options options = {0};
  options.struct_size = sizeof options;
  options.abi_version = LE_ABI_VERSION;
  options.release_dir = argv[1];
  options.threads = 1;
  le_policy *policy = NULL;
  if (le_open(&options, &policy, error, sizeof error) != LE_OK) die("le_open", error);
  le_policy_info info = {0};
  info.struct_size = sizeof info;
  le_info(policy, &info);
  const size_t bytes = (size_t)info.cameras * info.image_height * info.image_width * 3;
  unsigned char *images = calloc(bytes, 1);
  float *state = calloc(info.state_dim, sizeof *state);
  float *command = calloc(info.action_dim, sizeof *command);
  int64_t *tokens = calloc(info.instruction_length, sizeof *tokens);
  if (le_set_instruction(policy, tokens, info.instruction_length, error, sizeof error) != LE_OK) {
    die("le_set_instruction", error);
  }
  le_run_options run = {0};
  run.struct_size = sizeof run;
  run.poll_ns = 20000;
  run.refill_at = info.chunks_per_plan;
  run.max_observation_age_ns = 10000000000u;
  if (le_start(policy, &run, error, sizeof error) != LE_OK) die("le_start", error);
  le_observation observation = {0};
  observation.struct_size = sizeof observation;
  observation.state_count = info.state_dim;
  observation.images = images;
  observation.image_bytes = bytes;
  observation.state = state;
  le_tick_info tick = {0};
  tick.struct_size = sizeof tick;
  unsigned long running = 0;
  for (unsigned long i = 0; i < ticks; ++i) {
    const unsigned long long now = now_ns();
    if (i < paced || i % 64 == 0) {
      observation.timestamp_ns = now;
      begin_watch();
      const le_status status = le_observe(policy, &observation, error, sizeof error);
      end_watch();
      if (status != LE_OK) die("le_observe", error);
    }
    begin_watch();
    const le_status status = le_tick(policy, now, command, info.action_dim, &tick);
    end_watch();
    if (status != LE_OK) die("le_tick", le_status_name(status));
    running += tick.state == LE_RUNNING;
    if (i < paced) {
      const struct timespec pause = {0, 150000};
      nanosleep(&pause, NULL);
    }
  }
  le_stats_info stats = {0};
  stats.struct_size = sizeof stats;
  le_stats(policy, &stats);
  printf("%lu ticks, %lu running, %llu chunks: %lu memory, %lu locks, %lu system calls\n", ticks,
         running, (unsigned long long)stats.chunks, allocations, locks, calls);
  le_destroy(policy);
  free(images);
  free(state);
  free(command);
  free(tokens);
  if (running < paced / 10) die("self-test", "the policy hardly ran");
  return allocations + locks + calls == 0 ? 0 : 1;
}
