// Forms over GF(2) (forms.h) on AVX-512 with GFNI and VBMI.
#include "kernels/bgemm/finish_lanes.inc"
#include "kernels/bgemm/forms.h"

namespace netsuke {
namespace bgemm {
namespace {

constexpr int kHeld = 7;  // levels of a counter that stay in registers over all steps

struct Table {
  alignas(64) uint8_t row[128];
};
template <typename Function>
constexpr Table make_table(Function of) {
  Table t = {};
  for (int i = 0; i < 128; ++i) t.row[i] = of(i);
  return t;
}
constexpr Table kHalves = make_table([](int a) { return pixel_halves(a); });
constexpr Table kSeven = make_table([](int a) { return pixel_seven(a); });
constexpr Table kParity = make_table([](int a) { return static_cast<uint8_t>(ones_of(a) % 2 != 0 ? 255 : 0); });

NETSUKE_LANE __m512i look_up(const Table& t, __m512i index) {
  return _mm512_permutex2var_epi8(_mm512_load_si512(t.row), index, _mm512_load_si512(t.row + 64));
}

NETSUKE_LANE __m512i parity3(__m512i a, __m512i b, __m512i c) { return _mm512_ternarylogic_epi64(a, b, c, 0x96); }
NETSUKE_LANE __m512i majority(__m512i a, __m512i b, __m512i c) { return _mm512_ternarylogic_epi64(a, b, c, 0xe8); }

// 8 registers of [pixel][8 bytes] to 8 of [byte][64 pixels]: bytes within a register, then its words among the registers.
NETSUKE_LANE void transpose(__m512i (&v)[8]) {
  alignas(64) static constexpr uint8_t kOrder[64] = {
      0, 8,  16, 24, 32, 40, 48, 56, 1, 9,  17, 25, 33, 41, 49, 57, 2, 10, 18, 26, 34, 42, 50, 58, 3, 11, 19, 27, 35, 43, 51, 59,
      4, 12, 20, 28, 36, 44, 52, 60, 5, 13, 21, 29, 37, 45, 53, 61, 6, 14, 22, 30, 38, 46, 54, 62, 7, 15, 23, 31, 39, 47, 55, 63};
  const __m512i order = _mm512_load_si512(kOrder);
  __m512i pair[8];  // even bytes of registers 2i and 2i + 1 in [2i], odd ones in [2i + 1]
#pragma GCC unroll 8
  for (int i = 0; i < 8; i += 2) {
    const __m512i a = _mm512_permutexvar_epi8(order, v[i]), b = _mm512_permutexvar_epi8(order, v[i + 1]);
    pair[i] = _mm512_unpacklo_epi64(a, b);
    pair[i + 1] = _mm512_unpackhi_epi64(a, b);
  }
#pragma GCC unroll 2
  for (int odd = 0; odd < 2; ++odd) {
    const __m512i a = _mm512_shuffle_i32x4(pair[odd], pair[2 + odd], 0x44), b = _mm512_shuffle_i32x4(pair[odd], pair[2 + odd], 0xee);
    const __m512i c = _mm512_shuffle_i32x4(pair[4 + odd], pair[6 + odd], 0x44), d = _mm512_shuffle_i32x4(pair[4 + odd], pair[6 + odd], 0xee);
    v[odd] = _mm512_shuffle_i32x4(a, c, 0x88);
    v[2 + odd] = _mm512_shuffle_i32x4(a, c, 0xdd);
    v[4 + odd] = _mm512_shuffle_i32x4(b, d, 0x88);
    v[6 + odd] = _mm512_shuffle_i32x4(b, d, 0xdd);
  }
}

// Bits of `mask` in every byte of pixels inside the image.
NETSUKE_LANE __m512i masked(__mmask64 inside, int mask) { return _mm512_maskz_set1_epi8(inside, static_cast<char>(mask)); }

NETSUKE_LANE void store_group(__m512i bits, __mmask64 inside, uint8_t* planes, int64_t plane) {
  const __m512i halves = look_up(kHalves, bits);
  _mm512_storeu_si512(planes, _mm512_and_si512(halves, masked(inside, 0x0f)));
  _mm512_storeu_si512(planes + plane, _mm512_and_si512(halves, masked(inside, 0xf0)));
  _mm512_storeu_si512(planes + 2 * plane, _mm512_and_si512(look_up(kSeven, bits), masked(inside, 0xff)));
}

NETSUKE_LANE __m512i top_bits(__m512i v) { return _mm512_movm_epi8(_mm512_movepi8_mask(v)); }

void pixels(const uint64_t* words, uint64_t inside, uint8_t* planes, int64_t plane) {
  const __m512i starts = _mm512_set1_epi64(0x312a231c150e0700);  // bits 7 k and the seven behind it
  __m512i group[8];
  uint64_t parities[8], tops[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    const __m512i v = _mm512_loadu_si512(words + 8 * i);
    group[i] = _mm512_multishift_epi64_epi8(starts, v);
    parities[i] = _mm512_movepi8_mask(look_up(kParity, group[i]));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(tops + i), _mm512_cvtepi64_epi8(_mm512_srli_epi64(v, 56)));
  }
  transpose(group);
#pragma GCC unroll 8
  for (int k = 0; k < 8; ++k) store_group(group[k], inside, planes + 3 * k * plane, plane);
  const __m512i ninth = _mm512_loadu_si512(tops), above = _mm512_loadu_si512(parities);
  store_group(ninth, inside, planes + 24 * plane, plane);
  store_group(above, inside, planes + 27 * plane, plane);
  const __m512i r = look_up(kParity, above), p7 = top_bits(above), p8 = look_up(kParity, ninth);
  const auto bits = [inside](__m512i v, int mask) { return _mm512_and_si512(v, masked(inside, mask)); };
  const __m512i three = _mm512_or_si512(bits(majority(r, p7, p8), 1), _mm512_or_si512(bits(_mm512_xor_si512(r, p8), 4), bits(_mm512_xor_si512(p7, p8), 8)));
  _mm512_storeu_si512(planes + 30 * plane, _mm512_or_si512(three, masked(inside, 0x02)));
  _mm512_storeu_si512(planes + 31 * plane, _mm512_or_si512(bits(parity3(r, p7, p8), 0x20), masked(inside, 0x10)));
  _mm512_storeu_si512(planes + 32 * plane, _mm512_or_si512(bits(ninth, 0x80), masked(inside, 0x40)));
}

// The majority of a, b and c, given a, b and the parity of all three: where a and b differ, c decides, and c is not the parity.
NETSUKE_LANE __m512i majority_by_parity(__m512i a, __m512i b, __m512i parity) { return _mm512_ternarylogic_epi64(a, b, parity, 0xd4); }

// sum += a + b; what is carried counts twice. From the operands, not by parity: copies are cheaper than waiting for the parity.
NETSUKE_LANE __m512i add_bits(__m512i* sum, __m512i a, __m512i b) {
  const __m512i carry = majority(*sum, a, b);
  *sum = parity3(*sum, a, b);
  return carry;
}

// In assembly on the machine itself: GCC 12 does not join the broadcast with the instruction, which made a fifth more of them.
NETSUKE_LANE __m512i form(__m512i channels, const uint8_t* pixels) {
#if defined(NETSUKE_SIMDE)
  int64_t eight;
  __builtin_memcpy(&eight, pixels, 8);
  return _mm512_gf2p8affine_epi64_epi8(channels, _mm512_set1_epi64(eight), 0);
#else
  __m512i out;
  __asm__("vgf2p8affineqb $0, %2%{1to8%}, %1, %0" : "=v"(out) : "v"(channels), "m"(*reinterpret_cast<const uint8_t(*)[8]>(pixels)));
  return out;
#endif
}

// Multiples of the distance of two planes, kept as they are: from the distance alone GCC makes one address from another, 33 additions
// in a row, as long as all else that a word takes.
struct Planes {
  int64_t at[7];
  explicit Planes(int64_t plane) {
    for (int i = 0; i < 7; ++i) {
      at[i] = i * plane;
      __asm__("" : "+r"(at[i]));
    }
  }
};

// Two groups of seven: their bits of weight 2 join the sum, carries of weight 4 and 8 come out.
struct Carries {
  __m512i four, eight;
};
NETSUKE_LANE Carries two_groups(const __m512i (&w)[4], const uint8_t* x, const Planes& planes, __m512i (&sum)[kHeld]) {
  const __m512i c0 = form(w[0], x), d0 = form(w[0], x + planes.at[1]), q0 = form(w[1], x + planes.at[2]);
  const __m512i c1 = form(w[2], x + planes.at[3]), d1 = form(w[2], x + planes.at[4]), q1 = form(w[3], x + planes.at[5]);
  const __m512i h0 = majority_by_parity(c0, d0, q0), h1 = majority_by_parity(c1, d1, q1);
  Carries out;
  out.four = add_bits(&sum[1], q0, q1);
  out.eight = add_bits(&sum[2], h0, h1);
  return out;
}

NETSUKE_LANE void load_channels(const uint8_t* w, __m512i (&to)[4]) {
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) to[i] = _mm512_load_si512(w + 64 * i);
}

// One word of a tap for kBlocks blocks of pixels; out: carries of weight 64.
template <int kBlocks>
NETSUKE_LANE void add_word(const uint8_t* x, const Planes& planes, const uint8_t* w, __m512i (&sum)[kBlocks][kHeld], __m512i (&out)[kBlocks]) {
  __m512i four[kBlocks], eight[kBlocks], sixteen[kBlocks], thirty_two[kBlocks];
#pragma GCC unroll 5
  for (int pair = 0; pair < 5; ++pair, x += planes.at[6], w += 256) {
    __m512i channels[4];
    load_channels(w, channels);
#pragma GCC unroll 2
    for (int b = 0; b < kBlocks; ++b) {
      const Carries c = two_groups(channels, x + b * kFormPixels, planes, sum[b]);
      if (pair == 0 || pair == 2 || pair == 4) {
        if (pair == 2) {  // eights: that of the fours of pairs 0 and 1, and this one
          const __m512i more = add_bits(&sum[b][3], eight[b], c.eight);
          thirty_two[b] = add_bits(&sum[b][4], sixteen[b], more);
        }
        four[b] = c.four;
        eight[b] = c.eight;
      } else if (pair == 1) {
        sixteen[b] = add_bits(&sum[b][3], eight[b], c.eight);
        eight[b] = add_bits(&sum[b][2], four[b], c.four);
      } else {
        sixteen[b] = add_bits(&sum[b][3], add_bits(&sum[b][2], four[b], c.four), c.eight);
      }
    }
  }
  const __m512i channels = _mm512_load_si512(w);
#pragma GCC unroll 2
  for (int b = 0; b < kBlocks; ++b) {
    const uint8_t* at = x + b * kFormPixels;
    const __m512i two = add_bits(&sum[b][0], form(channels, at + planes.at[1]), form(channels, at + planes.at[2]));
    const __m512i of_eight = add_bits(&sum[b][2], four[b], add_bits(&sum[b][1], form(channels, at), two));
    const __m512i of_sixteen = add_bits(&sum[b][4], sixteen[b], add_bits(&sum[b][3], eight[b], of_eight));
    out[b] = add_bits(&sum[b][5], thirty_two[b], of_sixteen);
  }
}

// Adds a plane of weight 128 to the levels of a counter that lie in memory.
NETSUKE_LANE void ripple(uint64_t* counter, int levels, __m512i carry) {
  for (int i = kHeld; i < levels; ++i) {
    const __m512i sum = _mm512_load_si512(counter + 8 * i);
    _mm512_store_si512(counter + 8 * i, _mm512_xor_si512(sum, carry));
    carry = _mm512_and_si512(sum, carry);
  }
}

template <int kBlocks>
void add_blocks(const FormTile& t) {
  const Planes planes(t.plane);
  __m512i sum[kBlocks][kHeld];
#pragma GCC unroll 2
  for (int b = 0; b < kBlocks; ++b) {
#pragma GCC unroll 8
    for (int i = 0; i < kHeld; ++i) sum[b][i] = t.fresh ? _mm512_setzero_si512() : _mm512_load_si512(t.counters + (b * kLevels + i) * 8);
    for (int i = kHeld; t.fresh && i < (t.levels > 8 ? kLevels : 8); ++i) _mm512_store_si512(t.counters + (b * kLevels + i) * 8, _mm512_setzero_si512());
  }
  const uint8_t* w = t.w;
  int64_t step = 0;
  for (; step + 2 <= t.steps; step += 2, w += 2 * kChannelForms * 64) {
    __m512i first[kBlocks], second[kBlocks];
    add_word<kBlocks>(t.x + t.offset[step], planes, w, sum, first);
    add_word<kBlocks>(t.x + t.offset[step + 1], planes, w + kChannelForms * 64, sum, second);
#pragma GCC unroll 2
    for (int b = 0; b < kBlocks; ++b) ripple(t.counters + b * kLevels * 8, t.levels, add_bits(&sum[b][6], first[b], second[b]));
  }
  if (step < t.steps) {
    __m512i last[kBlocks];
    add_word<kBlocks>(t.x + t.offset[step], planes, w, sum, last);
#pragma GCC unroll 2
    for (int b = 0; b < kBlocks; ++b) ripple(t.counters + b * kLevels * 8, t.levels, add_bits(&sum[b][6], last[b], _mm512_setzero_si512()));
  }
#pragma GCC unroll 2
  for (int b = 0; b < kBlocks; ++b) {
#pragma GCC unroll 8
    for (int i = 0; i < kHeld; ++i) _mm512_store_si512(t.counters + (b * kLevels + i) * 8, sum[b][i]);
  }
}

void add_forms(const FormTile& t) { t.blocks == 1 ? add_blocks<1>(t) : add_blocks<2>(t); }

// Eight planes of 8 bits, bit i of every byte in plane i, to bytes: those of bit i in v[i].
NETSUKE_LANE void bits_to_bytes(__m512i (&v)[8]) {
#pragma GCC unroll 3
  for (int k = 0; k < 3; ++k) {
    const int step = 1 << k;
    const __m512i even = _mm512_set1_epi8(static_cast<char>(k == 0 ? 0x55 : k == 1 ? 0x33 : 0x0f));
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      if ((i & step) != 0) continue;
      const __m512i a = v[i], b = v[i + step];
      v[i] = _mm512_ternarylogic_epi64(even, a, _mm512_slli_epi64(b, step), 0xca);  // even ? a : b
      v[i + step] = _mm512_ternarylogic_epi64(even, _mm512_srli_epi64(a, step), b, 0xca);
    }
  }
}

// Counts of one block, a byte and the byte above it.
struct Sums {
  __m512i low[8], high[8];
};
void read_block(const uint64_t* counters, int levels, Sums* sums) {
  __m512i planes[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) planes[i] = _mm512_load_si512(counters + 8 * i);
  bits_to_bytes(planes);
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) sums->low[i] = planes[7 - i];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) planes[i] = levels > 8 ? _mm512_load_si512(counters + 64 + 8 * i) : _mm512_setzero_si512();
  if (levels > 8) bits_to_bytes(planes);
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) sums->high[i] = planes[7 - i];
}

// The counts of one pixel, 16 channels a register, `above` in the upper half of each.
NETSUKE_LANE void widen(const Sums& sums, int pixel, __m512i above, __m512i (&to)[4]) {
  const __m512i first = _mm512_unpacklo_epi8(sums.low[pixel], sums.high[pixel]), second = _mm512_unpackhi_epi8(sums.low[pixel], sums.high[pixel]);
  to[0] = _mm512_unpacklo_epi16(first, above);
  to[1] = _mm512_unpackhi_epi16(first, above);
  to[2] = _mm512_unpacklo_epi16(second, above);
  to[3] = _mm512_unpackhi_epi16(second, above);
}

// A pixel's sums of 16 channels.
NETSUKE_LANE I16 sum_of(const FormResult& r, int pixel, int c, __m512i count) {
  const I16 counted = {count};
  return r.ones != nullptr ? sub(load_i32(r.ones + c), counted) : sub(sub(splat_i(r.base[pixel]), counted), counted);
}

// 16 columns from sums; returns their signs.
NETSUKE_LANE uint32_t finish_16(const Finish& f, const Shared& shared, const FormResult& r, I16 acc, int64_t m, int c) {
  const int n = r.columns - c < 16 ? r.columns - c : 16;
  const int64_t channel = r.channel + c, at = m * r.out_stride + c;
  if (f.out_bits) return ge_mask(acc, load_i32(f.threshold + channel));
  if (f.out_f32) {
    const float* residual = r.residual == nullptr ? nullptr : static_cast<const float*>(r.residual) + at;
    return finish_f32(f, acc, channel, residual, static_cast<float*>(r.out) + at, n);
  }
  const uint8_t* residual = r.residual == nullptr ? nullptr : static_cast<const uint8_t*>(r.residual) + at;
  return finish_u8(f, shared, acc, channel, residual, static_cast<uint8_t*>(r.out) + at, n);
}

struct AnyPixel {
  const Finish& f;
  const FormResult& r;
  Shared shared;
  uint64_t real;
  AnyPixel(const Finish& finish, const FormResult& result)
      : f(finish), r(result), shared{splat(static_cast<float>(f.lo - f.zero)), splat(static_cast<float>(f.hi - f.zero)), splat(f.r_mult), splat_i(f.zero), splat_i(f.r_zero)},
        real(r.columns == kBlock ? ~uint64_t{0} : (uint64_t{1} << r.columns) - 1) {}

  NETSUKE_LANE void operator()(const Sums& sums, int in_block, int pixel, int64_t m) const {
    __m512i count[4];
    widen(sums, in_block, _mm512_setzero_si512(), count);
    uint64_t word = 0;
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      if (16 * i < r.columns) word |= static_cast<uint64_t>(finish_16(f, shared, r, sum_of(r, pixel, 16 * i, count[i]), m, 16 * i)) << (16 * i);
    }
    if (r.bits != nullptr) r.bits[m * r.bit_stride] = (word ^ r.flip) & real;
  }
};

// 64 codes without slope and shift, what residual blocks have: the 64 become one register, clamped and compared as bytes. No y is so
// large that conversion overflows, so saturation and clamping of integers do what clamping of numbers would.
template <bool kResidual, bool kBits>
struct CodesPixel {
  const FormResult& r;
  F16 mult[4], bias[4], r_mult;
  I16 r_zero;
  __m512i zero, lo, hi, least;
  uint64_t never = 0;  // threshold above every code

  static NETSUKE_LANE __m512i as_bytes(const __m512i (&codes)[4], __m512i offset) {
    const __m512i low = _mm512_adds_epi16(_mm512_packs_epi32(codes[0], codes[1]), offset), high = _mm512_adds_epi16(_mm512_packs_epi32(codes[2], codes[3]), offset);
    const __m512i in_order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);  // packing goes by 128 bits
    return _mm512_permutexvar_epi32(in_order, _mm512_packus_epi16(low, high));
  }

  CodesPixel(const Finish& f, const FormResult& result) : r(result) {
    const int64_t channel = r.channel;
    __m512i thresholds[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      mult[i] = load(f.mult + channel + 16 * i);
      bias[i] = load(f.bias + channel + 16 * i);
      thresholds[i] = kBits ? load_i32(f.threshold + channel + 16 * i).v : _mm512_setzero_si512();
      never |= static_cast<uint64_t>(ge_mask(I16{thresholds[i]}, splat_i(256))) << (16 * i);
    }
    least = as_bytes(thresholds, _mm512_setzero_si512());
    r_mult = splat(f.r_mult);
    r_zero = splat_i(f.r_zero);
    zero = _mm512_set1_epi16(static_cast<int16_t>(f.zero));
    lo = _mm512_set1_epi8(static_cast<char>(f.lo));
    hi = _mm512_set1_epi8(static_cast<char>(f.hi));
  }

  NETSUKE_LANE void operator()(const Sums& sums, int in_block, int pixel, int64_t m) const {
    const int64_t at = m * r.out_stride;
    __m512i wide[4], codes[4];
    widen(sums, in_block, _mm512_set1_epi16(0x4b00), wide);  // as floats: 2^23 + count
    // base - 2 count, exact as long as base is even: 2^24 + base is a float.
    const F16 from = splat(static_cast<float>((1 << 24) + r.base[pixel])), minus_two = splat(-2.0f);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      F16 t = add(mul(fma(F16{_mm512_castsi512_ps(wide[i])}, minus_two, from), mult[i]), bias[i]);
      if (kResidual) t = add(t, mul(to_f32(sub(load_u8(static_cast<const uint8_t*>(r.residual) + at + 16 * i), r_zero)), r_mult));
      codes[i] = _mm512_cvtps_epi32(t.v);
    }
    const __m512i bytes = _mm512_min_epu8(_mm512_max_epu8(as_bytes(codes, zero), lo), hi);
    _mm512_storeu_si512(static_cast<uint8_t*>(r.out) + at, bytes);
    if (kBits) r.bits[m * r.bit_stride] = (_mm512_cmpge_epu8_mask(bytes, least) & ~never) ^ r.flip;
    else if (r.bits != nullptr) r.bits[m * r.bit_stride] = r.flip;
  }
};

template <typename Pixel>
void finish_runs(const FormResult& r, const Pixel& finish_pixel) {
  Sums sums;
  int block = -1;
  for (int64_t i = 0; i < r.n_runs; ++i) {
    const FormRun run = r.runs[i];
    if (run.first / kFormPixels != block) {
      block = run.first / kFormPixels;
      read_block(r.counters + block * kLevels * 8, r.levels, &sums);
    }
    for (int p = 0; p < run.count; ++p) finish_pixel(sums, run.first % kFormPixels + p, run.first + p, run.m + p);
  }
}

void finish_forms(const Finish& given, const FormResult& result) {
  const Finish f = given;
  const FormResult r = result;
  const bool plain = !f.out_bits && !f.out_f32 && f.bias != nullptr && f.slope == nullptr && f.shift == nullptr && f.small;
  if (!plain || !r.even || r.columns != kBlock || r.ones != nullptr) return finish_runs(r, AnyPixel(f, r));
  if (f.with_bits) return r.residual != nullptr ? finish_runs(r, CodesPixel<true, true>(f, r)) : finish_runs(r, CodesPixel<false, true>(f, r));
  return r.residual != nullptr ? finish_runs(r, CodesPixel<true, false>(f, r)) : finish_runs(r, CodesPixel<false, false>(f, r));
}

}  // namespace

#ifndef NETSUKE_TABLE  // test_simde.cc names its own
#define NETSUKE_TABLE x86_avx512gfni
#endif

extern const FormKernels NETSUKE_TABLE_NAME(form_kernels);
const FormKernels NETSUKE_TABLE_NAME(form_kernels) = {"x86_avx512gfni_16x64", pixels, add_forms, finish_forms};

}  // namespace bgemm
}  // namespace netsuke
