// RUN: torchport opt %s -p 'fold-nan-tests' | filecheck %s

// Equal numbers other than 0 are the same: the comparison becomes one that x86 has as min and max.
// CHECK-LABEL: func.func @clamp
// CHECK-DAG: %[[LOW:.*]] = arith.constant dense<-1.000000e+00>
// CHECK-DAG: %[[HIGH:.*]] = arith.constant dense<6.000000e+00>
// CHECK: %[[A:.*]] = arith.cmpf uge, %arg0, %[[LOW]]
// CHECK: %[[B:.*]] = arith.select %[[A]], %arg0, %[[LOW]]
// CHECK: %[[C:.*]] = arith.cmpf ule, %[[B]], %[[HIGH]]
// CHECK: %[[D:.*]] = arith.select %[[C]], %[[B]], %[[HIGH]]
// CHECK: return %[[D]]
func.func @clamp(%x: vector<16xf32>) -> vector<16xf32> {
  %low = arith.constant dense<-1.0> : vector<16xf32>
  %high = arith.constant dense<6.0> : vector<16xf32>
  %0 = arith.cmpf ogt, %x, %low : vector<16xf32>
  %1 = arith.cmpf une, %x, %x : vector<16xf32>
  %2 = arith.ori %0, %1 : vector<16xi1>
  %3 = arith.select %2, %x, %low : vector<16xi1>, vector<16xf32>
  %4 = arith.cmpf olt, %3, %high : vector<16xf32>
  %5 = arith.cmpf uno, %3, %3 : vector<16xf32>
  %6 = arith.ori %5, %4 : vector<16xi1>
  %7 = arith.select %6, %3, %high : vector<16xi1>, vector<16xf32>
  return %7 : vector<16xf32>
}

// 0 equals -0, which has to become 0.
// CHECK-LABEL: func.func @relu
// CHECK: arith.cmpf ugt, %arg0
// CHECK-NOT: arith.ori
func.func @relu(%x: f64) -> f64 {
  %zero = arith.constant 0.0 : f64
  %0 = arith.cmpf ogt, %x, %zero : f64
  %1 = arith.cmpf une, %x, %x : f64
  %2 = arith.ori %0, %1 : i1
  %3 = arith.select %2, %x, %zero : f64
  return %3 : f64
}

// NaN as bound, a bound that is not known, a test of another value, the bound chosen for NaN: as they are.
// CHECK-LABEL: func.func @others
// CHECK-COUNT-4: arith.ori
func.func @others(%x: f32, %y: f32) -> (f32, f32, f32, f32) {
  %nan = arith.constant 0x7FC00000 : f32
  %two = arith.constant 2.0 : f32
  %self = arith.cmpf une, %x, %x : f32
  %a = arith.cmpf olt, %x, %nan : f32
  %b = arith.ori %a, %self : i1
  %c = arith.select %b, %x, %nan : f32
  %d = arith.cmpf olt, %x, %y : f32
  %e = arith.ori %d, %self : i1
  %f = arith.select %e, %x, %y : f32
  %other = arith.cmpf une, %y, %y : f32
  %g = arith.cmpf olt, %x, %two : f32
  %h = arith.ori %g, %other : i1
  %i = arith.select %h, %x, %two : f32
  %j = arith.ori %g, %self : i1
  %k = arith.select %j, %two, %x : f32
  return %c, %f, %i, %k : f32, f32, f32, f32
}
