//! Grisu2: short decimal digits that read back as the same double.
//!
//! Written from Florian Loitsch, "Printing Floating-Point Numbers Quickly and Accurately with Integers" (PLDI 2010),
//! with the parameters nlohmann's library chose (alpha -60, gamma -32, powers of ten eight apart). In about one number
//! of a thousand Grisu2 does not find the shortest digits; that must stay so, as Nix prints those.
//!
//! Invariants
//! - intermediate products keep 64 bits, rounded half up; the interval is narrowed by one unit on both sides for it.

/// `significand` times two to the `exponent`.
#[derive(Clone, Copy)]
struct Extended {
    significand: u64,
    exponent: i32,
}

/// The digits of a positive, finite number, and the power of ten of the last digit.
pub(super) fn shortest(number: f64) -> (String, i32) {
    let (low, middle, high) = boundaries(number);
    let (power, decimal) = cached_power(high.exponent);
    let middle = middle.times(power);
    let low = low.times(power);
    let high = high.times(power);
    let low = Extended {
        significand: low.significand + 1,
        ..low
    };
    let high = Extended {
        significand: high.significand - 1,
        ..high
    };
    generate(low, middle, high, -decimal)
}

impl Extended {
    fn normalized(self) -> Self {
        let shift = self.significand.leading_zeros();
        Self {
            significand: self.significand << shift,
            exponent: self.exponent - shift.cast_signed(),
        }
    }

    /// The same number with a smaller exponent.
    fn with_exponent(self, exponent: i32) -> Self {
        let shift = self.exponent - exponent;
        Self {
            significand: self.significand << shift,
            exponent,
        }
    }

    /// The upper 64 bits of the product, rounded half up.
    fn times(self, other: Self) -> Self {
        let product = u128::from(self.significand) * u128::from(other.significand);
        let rounded = (product + (1 << 63)) >> 64;
        Self {
            significand: u64::try_from(rounded).unwrap_or(u64::MAX),
            exponent: self.exponent + other.exponent + 64,
        }
    }
}

/// The number and the middles between it and its neighbours, all with one exponent, the upper one normalised.
fn boundaries(number: f64) -> (Extended, Extended, Extended) {
    const FRACTION_BITS: u32 = 52;
    const BIAS: i32 = 1075;
    let bits = number.to_bits();
    let biased = i32::try_from(bits >> FRACTION_BITS & 0x7FF).unwrap_or(0);
    let fraction = bits & ((1 << FRACTION_BITS) - 1);
    let middle = if biased == 0 {
        Extended {
            significand: fraction,
            exponent: 1 - BIAS,
        }
    } else {
        Extended {
            significand: fraction + (1 << FRACTION_BITS),
            exponent: biased - BIAS,
        }
    };
    let high = Extended {
        significand: 2 * middle.significand + 1,
        exponent: middle.exponent - 1,
    };
    // Just above a power of two the lower neighbour is only half as far away.
    let low = if fraction == 0 && biased > 1 {
        Extended {
            significand: 4 * middle.significand - 1,
            exponent: middle.exponent - 2,
        }
    } else {
        Extended {
            significand: 2 * middle.significand - 1,
            exponent: middle.exponent - 1,
        }
    };
    let high = high.normalized();
    (low.with_exponent(high.exponent), middle.normalized(), high)
}

/// A power of ten that brings an exponent into -60..=-32, and which power it is.
fn cached_power(exponent: i32) -> (Extended, i32) {
    const ALPHA: i32 = -60;
    const FIRST: i32 = -300;
    const STEP: i32 = 8;
    // 78913 / 2^18 is log10(2), near enough for every exponent of a double.
    let wanted = ALPHA - exponent - 1;
    let least = wanted * 78913 / (1 << 18) + i32::from(wanted > 0);
    let index = usize::try_from((least - FIRST + STEP - 1) / STEP)
        .unwrap_or(0)
        .min(POWERS.len() - 1);
    let decimal = FIRST + STEP * i32::try_from(index).unwrap_or(0);
    // 1741647 / 2^19 is log2(10): the exponent that leaves a significand of 64 bits.
    let power = Extended {
        significand: POWERS[index],
        exponent: ((decimal * 1_741_647) >> 19) - 63,
    };
    (power, decimal)
}

/// Produces digits of `high` until what is left out lies within the interval, then steps towards `middle`.
fn generate(low: Extended, middle: Extended, high: Extended, mut exponent: i32) -> (String, i32) {
    let mut delta = high.significand - low.significand;
    let mut distance = high.significand - middle.significand;
    let shift = -high.exponent;
    let one = 1_u64 << shift;
    let mut whole = high.significand >> shift;
    let mut fraction = high.significand & (one - 1);
    let mut digits = Vec::with_capacity(20);

    let mut power = if whole == 0 { 1 } else { 10_u64.pow(whole.ilog10()) };
    let mut left = if whole == 0 { 1 } else { whole.ilog10() + 1 };
    while left > 0 {
        digits.push(whole / power);
        whole %= power;
        left -= 1;
        let rest = (whole << shift) + fraction;
        if rest <= delta {
            exponent += left.cast_signed();
            approach(&mut digits, distance, delta, rest, power << shift);
            return (text(&digits), exponent);
        }
        power /= 10;
    }
    let mut after_point = 0;
    loop {
        fraction *= 10;
        digits.push(fraction >> shift);
        fraction &= one - 1;
        after_point += 1;
        delta *= 10;
        distance *= 10;
        if fraction <= delta {
            break;
        }
    }
    approach(&mut digits, distance, delta, fraction, one);
    (text(&digits), exponent - after_point)
}

/// Lowers the last digit while that brings the result nearer to the number and keeps it in the interval.
fn approach(digits: &mut [u64], distance: u64, delta: u64, mut rest: u64, unit: u64) {
    let Some(last) = digits.last_mut() else { return };
    while rest < distance
        && delta - rest >= unit
        && (rest + unit < distance || distance - rest > rest + unit - distance)
    {
        *last -= 1;
        rest += unit;
    }
}

fn text(digits: &[u64]) -> String {
    digits
        .iter()
        .filter_map(|&digit| char::from_digit(u32::try_from(digit).ok()?, 10))
        .collect()
}

/// The significands, rounded to 64 bits, of ten to the -300, -292, and so on up to 324.
const POWERS: [u64; 79] = [
    0xAB70_FE17_C79A_C6CA,
    0xFF77_B1FC_BEBC_DC4F,
    0xBE56_91EF_416B_D60C,
    0x8DD0_1FAD_907F_FC3C,
    0xD351_5C28_3155_9A83,
    0x9D71_AC8F_ADA6_C9B5,
    0xEA9C_2277_23EE_8BCB,
    0xAECC_4991_4078_536D,
    0x823C_1279_5DB6_CE57,
    0xC210_9436_4DFB_5637,
    0x9096_EA6F_3848_984F,
    0xD774_85CB_2582_3AC7,
    0xA086_CFCD_97BF_97F4,
    0xEF34_0A98_172A_ACE5,
    0xB238_67FB_2A35_B28E,
    0x84C8_D4DF_D2C6_3F3B,
    0xC5DD_4427_1AD3_CDBA,
    0x936B_9FCE_BB25_C996,
    0xDBAC_6C24_7D62_A584,
    0xA3AB_6658_0D5F_DAF6,
    0xF3E2_F893_DEC3_F126,
    0xB5B5_ADA8_AAFF_80B8,
    0x8762_5F05_6C7C_4A8B,
    0xC9BC_FF60_34C1_3053,
    0x964E_858C_91BA_2655,
    0xDFF9_7724_7029_7EBD,
    0xA6DF_BD9F_B8E5_B88F,
    0xF8A9_5FCF_8874_7D94,
    0xB944_7093_8FA8_9BCF,
    0x8A08_F0F8_BF0F_156B,
    0xCDB0_2555_6531_31B6,
    0x993F_E2C6_D07B_7FAC,
    0xE45C_10C4_2A2B_3B06,
    0xAA24_2499_6973_92D3,
    0xFD87_B5F2_8300_CA0E,
    0xBCE5_0864_9211_1AEB,
    0x8CBC_CC09_6F50_88CC,
    0xD1B7_1758_E219_652C,
    0x9C40_0000_0000_0000,
    0xE8D4_A510_0000_0000,
    0xAD78_EBC5_AC62_0000,
    0x813F_3978_F894_0984,
    0xC097_CE7B_C907_15B3,
    0x8F7E_32CE_7BEA_5C70,
    0xD5D2_38A4_ABE9_8068,
    0x9F4F_2726_179A_2245,
    0xED63_A231_D4C4_FB27,
    0xB0DE_6538_8CC8_ADA8,
    0x83C7_088E_1AAB_65DB,
    0xC45D_1DF9_4271_1D9A,
    0x924D_692C_A61B_E758,
    0xDA01_EE64_1A70_8DEA,
    0xA26D_A399_9AEF_774A,
    0xF209_787B_B47D_6B85,
    0xB454_E4A1_79DD_1877,
    0x865B_8692_5B9B_C5C2,
    0xC835_53C5_C896_5D3D,
    0x952A_B45C_FA97_A0B3,
    0xDE46_9FBD_99A0_5FE3,
    0xA59B_C234_DB39_8C25,
    0xF6C6_9A72_A398_9F5C,
    0xB7DC_BF53_54E9_BECE,
    0x88FC_F317_F222_41E2,
    0xCC20_CE9B_D35C_78A5,
    0x9816_5AF3_7B21_53DF,
    0xE2A0_B5DC_971F_303A,
    0xA8D9_D153_5CE3_B396,
    0xFB9B_7CD9_A4A7_443C,
    0xBB76_4C4C_A7A4_4410,
    0x8BAB_8EEF_B640_9C1A,
    0xD01F_EF10_A657_842C,
    0x9B10_A4E5_E991_3129,
    0xE710_9BFB_A19C_0C9D,
    0xAC28_20D9_623B_F429,
    0x8044_4B5E_7AA7_CF85,
    0xBF21_E440_03AC_DD2D,
    0x8E67_9C2F_5E44_FF8F,
    0xD433_179D_9C8C_B841,
    0x9E19_DB92_B4E3_1BA9,
];
