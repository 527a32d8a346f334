// x / 0 is x and x % 0 is 0, division by -1 wraps, and vectors divide in floating point.
// RUN: torchport opt -p lower-division %s | filecheck %s

// CHECK-LABEL: func.func @scalar
// CHECK: %[[IS_ZERO:.*]] = arith.cmpi eq, %arg1, %c0_i32 : i32
// CHECK: %[[NOT_ZERO:.*]] = arith.select %[[IS_ZERO]], %c1_i32, %arg1 : i32
// CHECK: %[[NEGATES:.*]] = arith.cmpi eq, %arg1, %c-1_i32 : i32
// CHECK: %[[SAFE:.*]] = arith.select %[[NEGATES]], %c1_i32, %[[NOT_ZERO]] : i32
// CHECK: %[[QUOTIENT:.*]] = arith.divsi %arg0, %[[SAFE]] : i32
// CHECK: %[[NEGATED:.*]] = arith.subi %c0_i32, %arg0 : i32
// CHECK: %[[RESULT:.*]] = arith.select %[[NEGATES]], %[[NEGATED]], %[[QUOTIENT]] : i32
// CHECK: return %[[RESULT]]
func.func @scalar(%a: i32, %b: i32) -> i32 {
  %q = arith.divsi %a, %b : i32
  return %q : i32
}

// f64 cannot hold 64-bit integers: these stay integer divisions. a % b is a - a / b * b.
// CHECK-LABEL: func.func @remainder
// CHECK: %[[SAFE:.*]] = arith.select %{{.*}}, %{{.*}}, %arg1 : vector<4xi1>, vector<4xi64>
// CHECK-NOT: -1
// CHECK: %[[QUOTIENT:.*]] = arith.divui %arg0, %[[SAFE]] : vector<4xi64>
// CHECK: %[[PRODUCT:.*]] = arith.muli %[[QUOTIENT]], %[[SAFE]] : vector<4xi64>
// CHECK: %[[REST:.*]] = arith.subi %arg0, %[[PRODUCT]] : vector<4xi64>
// CHECK: return %[[REST]]
func.func @remainder(%a: vector<4xi64>, %b: vector<4xi64>) -> vector<4xi64> {
  %r = arith.remui %a, %b : vector<4xi64>
  return %r : vector<4xi64>
}

// CHECK-LABEL: func.func @vector
// CHECK-NOT: arith.divsi
// CHECK: %[[A:.*]] = arith.sitofp %arg0 : vector<8xi32> to vector<8xf64>
// CHECK: %[[B:.*]] = arith.sitofp %{{.*}} : vector<8xi32> to vector<8xf64>
// CHECK: %[[Q:.*]] = arith.divf %[[A]], %[[B]] : vector<8xf64>
// CHECK: %[[T:.*]] = math.trunc %[[Q]] : vector<8xf64>
// CHECK: arith.fptosi %[[T]] : vector<8xf64> to vector<8xi32>
func.func @vector(%a: vector<8xi32>, %b: vector<8xi32>) -> vector<8xi32> {
  %q = arith.divsi %a, %b : vector<8xi32>
  return %q : vector<8xi32>
}

// CHECK-LABEL: func.func @short
// CHECK: arith.uitofp %arg0 : vector<8xi16> to vector<8xf32>
// CHECK: arith.divf %{{.*}} : vector<8xf32>
// CHECK: arith.fptoui %{{.*}} : vector<8xf32> to vector<8xi16>
func.func @short(%a: vector<8xi16>, %b: vector<8xi16>) -> vector<8xi16> {
  %q = arith.divui %a, %b : vector<8xi16>
  return %q : vector<8xi16>
}

// CHECK-LABEL: func.func @by_constant
// CHECK-NEXT: %[[THREE:.*]] = arith.constant dense<3> : vector<8xi32>
// CHECK-NEXT: arith.divsi %arg0, %[[THREE]] : vector<8xi32>
// CHECK-NEXT: return
func.func @by_constant(%a: vector<8xi32>) -> vector<8xi32> {
  %b = arith.constant dense<3> : vector<8xi32>
  %q = arith.divsi %a, %b : vector<8xi32>
  return %q : vector<8xi32>
}

// The lowest integer divided by a constant -1 would trap as well.
// CHECK-LABEL: func.func @by_minus_one
// CHECK: %[[NOT_ZERO:.*]] = arith.select %{{.*}}, %c1_i32, %{{.*}} : i32
// CHECK: %[[SAFE:.*]] = arith.select %{{.*}}, %c1_i32, %[[NOT_ZERO]] : i32
// CHECK: arith.divsi %arg0, %[[SAFE]] : i32
// CHECK: arith.subi %c0_i32, %arg0 : i32
func.func @by_minus_one(%a: i32) -> i32 {
  %b = arith.constant -1 : i32
  %q = arith.divsi %a, %b : i32
  return %q : i32
}
