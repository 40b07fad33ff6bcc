/* What a C programmer can do with the header and nothing else: open a release, learn its names and
 * sizes, say what to do in words, run it in sync and in async mode.
 *
 *     header_only RELEASE TEXT SYNC_STEPS ASYNC_SECONDS
 *
 * Exit status: 0 it ran, 1 it did not, 2 it could not be opened.
 */
#define _POSIX_C_SOURCE 200809L
#include <libra_edge.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static char error[LE_ERROR_SIZE];

static int failed(const char *what) {
  fprintf(stderr, "%s: %s\n", what, error);
  return 1;
}

static uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void print_dim(const char *what, const le_dim_info *dim) {
  static const char *const kinds[] = {"state", "absolute", "delta", "gripper"};
  printf("%s %s [%s] %s %g to %g, change %g, acceleration %g%s\n", what, dim->name, dim->unit,
         kinds[dim->kind], (double)dim->lower, (double)dim->upper, (double)dim->max_step_change,
         (double)dim->max_acceleration, dim->flags & LE_DIM_FAULTS ? ", faults" : "");
}

static int describe(const le_policy *policy, const le_policy_info *info) {
  printf("%s for %s, %g Hz, %u tokens of %u, pad %u, unknown %u, flags %u\n", info->name,
         info->target, info->control_hz, info->instruction_length, info->vocabulary,
         info->pad_token, info->unknown_token, info->flags);
  for (uint32_t v = 0; v < info->cameras; ++v) {
    printf("camera %s %u x %u\n", le_camera_name(policy, v), info->image_height, info->image_width);
  }
  le_dim_info dim = {0};
  dim.struct_size = sizeof dim;
  for (uint32_t p = 0; p < info->state_dim; ++p) {
    if (le_state_dim(policy, p, &dim) != LE_OK) return failed("le_state_dim");
    print_dim("state", &dim);
  }
  for (uint32_t d = 0; d < info->action_dim; ++d) {
    if (le_action_dim(policy, d, &dim) != LE_OK) return failed("le_action_dim");
    print_dim("action", &dim);
  }
  return 0;
}

static int instruct(le_policy *policy, uint32_t length, const char *text) {
  int64_t *tokens = calloc(length, sizeof *tokens);
  if (tokens == NULL) return 1;
  int wrong = le_tokenize(policy, text, tokens, length, error, sizeof error) != LE_OK ||
              le_set_instruction(policy, tokens, length, error, sizeof error) != LE_OK;
  if (wrong) failed("le_tokenize");
  printf("tokens");
  for (uint32_t t = 0; t < length; ++t) printf(" %lld", (long long)tokens[t]);
  printf("\n");
  free(tokens);
  return wrong;
}

static int run_sync(le_policy *policy, const le_observation *seen, float *action, uint32_t count,
                    unsigned steps) {
  le_step_info info = {0};
  info.struct_size = sizeof info;
  unsigned running = 0;
  for (unsigned i = 0; i < steps; ++i) {
    if (le_observe(policy, seen, error, sizeof error) != LE_OK) return failed("le_observe");
    if (le_step(policy, action, count, &info, error, sizeof error) != LE_OK) {
      return failed("le_step");
    }
    running += info.state == LE_RUNNING;
  }
  printf("sync: %u of %u steps running\n", running, steps);
  return running != steps;
}

static int run_async(le_policy *policy, le_observation *seen, float *action, uint32_t count,
                     double hertz, double seconds) {
  le_run_options options = {0};
  options.struct_size = sizeof options;
  if (le_start(policy, &options, error, sizeof error) != LE_OK) return failed("le_start");
  le_tick_info info = {0};
  info.struct_size = sizeof info;
  const unsigned ticks = (unsigned)(hertz * seconds);
  const struct timespec period = {(time_t)(1 / hertz), (long)(1e9 / hertz) % 1000000000};
  unsigned running = 0;
  for (unsigned i = 0; i < ticks; ++i) {
    seen->timestamp_ns = now_ns();
    if (le_observe(policy, seen, error, sizeof error) != LE_OK) return failed("le_observe");
    if (le_tick(policy, now_ns(), action, count, &info) != LE_OK) return failed("le_tick");
    running += info.state == LE_RUNNING;
    nanosleep(&period, NULL);
  }
  char text[LE_ERROR_SIZE];
  if (le_fault_text(policy, text, sizeof text) != LE_OK || text[0] != '\0') return failed(text);
  printf("async: %u of %u ticks running\n", running, ticks);
  return le_stop(policy) != LE_OK || 2 * running < ticks;
}

int main(int argc, char **argv) {
  if (argc != 5) return 2;
  le_open_options options = {0};
  options.struct_size = sizeof options;
  options.abi_version = LE_ABI_VERSION;
  options.release_dir = argv[1];
  options.threads = 1;
  le_policy *policy = NULL;
  if (le_open(&options, &policy, error, sizeof error) != LE_OK) return failed("le_open") + 1;
  const char *telemetry = getenv("ORT_DISABLE_TELEMETRY");
  printf("ORT_DISABLE_TELEMETRY is %s\n", telemetry == NULL ? "unset" : telemetry);
  le_policy_info info = {0};
  info.struct_size = sizeof info;
  if (le_info(policy, &info) != LE_OK) return failed("le_info");

  le_observation seen = {0};
  seen.struct_size = sizeof seen;
  seen.image_bytes = (uint64_t)info.cameras * info.image_height * info.image_width * 3;
  seen.state_count = info.state_dim;
  uint8_t *images = calloc(1, seen.image_bytes);
  float *state = calloc(info.state_dim, sizeof *state);
  float *action = calloc(info.action_dim, sizeof *action);
  seen.images = images;
  seen.state = state;
  const int wrong =
      images == NULL || state == NULL || action == NULL || describe(policy, &info) ||
      instruct(policy, info.instruction_length, argv[2]) ||
      run_sync(policy, &seen, action, info.action_dim, (unsigned)atoi(argv[3])) ||
      run_async(policy, &seen, action, info.action_dim, info.control_hz, atof(argv[4]));
  le_destroy(policy);
  free(images);
  free(state);
  free(action);
  return wrong;
}
